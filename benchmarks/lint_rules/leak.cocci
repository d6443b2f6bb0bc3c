// A window that is still open at a return: address families by variable, kmap() by page.
// Ours, for the comparison in benchmarks/lint.py; run with: spatch --sp-file leak.cocci FILE

@by_address exists@
expression window;
position at;
@@

window = \(kmap_atomic\|kmap_local_page\|kmap_local_folio\|kmap_local_pfn\|kmap_atomic_pfn\|bvec_kmap_local\)(...)
... when != \(kunmap_atomic\|kunmap_local\)(<+... window ...+>)
    when != return <+... window ...+>;
    when != window = ...
return@at ...;

@by_page exists@
expression page;
position at;
@@

kmap(page)
... when != kunmap(page)
return@at ...;

@script:python depends on by_address@
at << by_address.at;
@@

print(f"{at[0].file}:{at[0].line}: leak")

@script:python depends on by_page@
at << by_page.at;
@@

print(f"{at[0].file}:{at[0].line}: leak")
