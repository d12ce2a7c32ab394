"""The commands of `pyro-nlp`: one function each, which prints; `cli` parses and turns errors into one line."""
