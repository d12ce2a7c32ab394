"""The zoo's generative models, one file each. Written once; inference is chosen elsewhere."""
