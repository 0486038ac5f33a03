"""Answers to questions: what happened, where, why, and what to do about it."""
