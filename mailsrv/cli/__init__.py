"""The operator's tool ``mailsrv``: one module for each group of verbs."""
