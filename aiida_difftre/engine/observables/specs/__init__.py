"""What observables are called, their units, options and shapes. Free of JAX."""
