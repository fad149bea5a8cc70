import recon  # noqa: F401  before any script loads torch: it settles how threads wait
