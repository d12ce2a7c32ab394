"""The zoo's inference networks, one file per family. A guide meets a model through site names only."""
