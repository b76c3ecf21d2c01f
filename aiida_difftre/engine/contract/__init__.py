"""What the engine and the AiiDA side agree on: jobs, settings, files, targets, names. Free of JAX."""
