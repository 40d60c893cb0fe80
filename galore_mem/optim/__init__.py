"""The GaLore optimizer."""
