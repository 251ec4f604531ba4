"""§5.3, Table 2: everything about time. Nothing else in the package needs what is here."""
