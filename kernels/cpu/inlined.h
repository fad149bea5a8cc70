// For functions in headers that hot files share with others, and for lambdas in loops that must not call.
#pragma once

/// Compiled for several instruction sets under one name, a function that is not inlined could be linked into code for
/// another set. (What hot files alone use is in the set's own namespace instead.)
#define INLINED inline __attribute__((always_inline))
/// After a lambda's parameters.
#define INLINED_LAMBDA __attribute__((always_inline))
