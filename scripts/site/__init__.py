"""What MkDocs calls as it builds the site: pages from outside docs/, references from the code, links."""
