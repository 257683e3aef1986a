"""What a user writes: sections, schema, loading."""
