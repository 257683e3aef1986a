"""What tests share: small networks and studies, fabricated data, reference values."""
