// For functions in headers that hot files share with others.
#pragma once

/// Compiled for several instruction sets under one name, a function that is not inlined could be linked into code for
/// another set. (What hot files alone use is in the set's own namespace instead.)
#define INLINED inline __attribute__((always_inline))
