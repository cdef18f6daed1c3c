"""The label file: what a teacher drew, the rules that choose from it, and what is exported."""
