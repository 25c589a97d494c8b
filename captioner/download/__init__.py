"""Getting public data sets: one table of addresses, a fetch that resumes, an unpacking that is safe."""
