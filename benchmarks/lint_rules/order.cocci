// Two temporary windows unmapped in the order in which they were mapped.
// Ours, for the comparison in benchmarks/lint.py; run with: spatch --sp-file order.cocci FILE

@order exists@
expression first, second;
position at;
@@

first = \(kmap_atomic\|kmap_local_page\|kmap_local_folio\|bvec_kmap_local\)(...)
... when != \(kunmap_atomic\|kunmap_local\)(first)
second = \(kmap_atomic\|kmap_local_page\|kmap_local_folio\|bvec_kmap_local\)(...)
... when != \(kunmap_atomic\|kunmap_local\)(second)
    when != \(kunmap_atomic\|kunmap_local\)(first)
\(kunmap_atomic@at\|kunmap_local@at\)(first)

@script:python@
at << order.at;
@@

print(f"{at[0].file}:{at[0].line}: order")
