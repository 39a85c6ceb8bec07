"""Values and formats of mail: addresses, envelopes, outcomes, headers, reports.  Standard library only."""
