"""What make_golden.py is made of: `cases` (the list, and what a case must satisfy), `models` (random ones, and wrong ones),
`files` (Hugging Face directories, directories of .npy), `gguf_files`, and a file per group of families with its cases."""
