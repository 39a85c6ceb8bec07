"""Programs for people who work on mailsrv or look at it for the first time; none is part of the package."""
