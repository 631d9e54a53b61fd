"""`python -m subspace_match`: the command `subspace-match`, where its own name is not on the path."""
from .cli import main

if __name__ == "__main__": main(prog_name="python -m subspace_match")
