"""The rows of docs/the-discussion.md, by subject."""
