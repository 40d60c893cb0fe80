"""The interactive comparison: every configuration against every card, over `answers`."""
