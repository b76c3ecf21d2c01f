"""Work chains: a restart chain per calculation job, and the composites that refine a potential with experiments."""
