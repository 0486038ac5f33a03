"""Predicts a captured run under another policy or on another machine."""
