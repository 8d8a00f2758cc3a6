"""The processes of the mesh, and what they share on the wire and at run time."""
