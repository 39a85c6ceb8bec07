"""SASL mechanisms (RFC 4422), pure: responses in, challenges and credentials out."""
