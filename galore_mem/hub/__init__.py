"""Configurations and weight headers from the Hugging Face Hub: read, never run, and no weights."""
