"""What a sweep file may hold, for editors and people: the JSON schema and docs/configuration.md."""
