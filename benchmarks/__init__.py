from importlib import import_module

import_module("recon")  # for its effect, before any script loads torch: it settles how threads wait
