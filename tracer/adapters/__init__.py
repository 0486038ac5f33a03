"""How to read a runtime's P, M and G: one module for each runtime."""
