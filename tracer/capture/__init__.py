"""Captures: who is traced, when programs are attached, and where records go."""
