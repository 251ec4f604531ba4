"""§5.3, Table 2: everything about speed. The other packages do not depend on this one."""
