"""Programs of the machine: sources in C, their bindings, which of them runs where, and what JAX compiled and kept."""
