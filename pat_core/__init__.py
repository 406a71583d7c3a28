"""PaT: personalized text for people about whom almost nothing is known. Reading order: see the file tree in README.md."""
