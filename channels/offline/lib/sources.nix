# Folders copied to the store without the files that do not belong there.
{ lib }:
rec {
  # Leaves out version control, editors' leftovers, build results and sockets.
  cleanSourceFilter = path: type:
    let name = baseNameOf (toString path);
    in
    !(
      # In a work tree, .git is a file.
      name == ".git"
      || (type == "directory" && builtins.elem name [ ".svn" "CVS" ".hg" ".jj" ".pijul" "_darcs" ])
      || lib.hasSuffix "~" name
      || builtins.match "\\.sw[a-z]|\\..*\\.sw[a-z]" name != null
      || lib.hasSuffix ".o" name
      || lib.hasSuffix ".so" name
      || (type == "symlink" && lib.hasPrefix "result" name)
      || type == "unknown"
    );

  cleanSource = src: cleanSourceWith { inherit src; filter = cleanSourceFilter; };

  # A source may be filtered again: every filter must agree.
  cleanSourceWith = { filter ? _: _: true, src, name ? null }:
    let
      inner = src._filtered or { origin = src; filter = _: _: true; name = "source"; };
      both = path: type: filter path type && inner.filter path type;
      name' = if name != null then name else inner.name;
    in
    {
      _filtered = { inherit (inner) origin; filter = both; name = name'; };
      outPath = builtins.path { path = inner.origin; filter = both; name = name'; };
      name = name';
    };

  sourceFilesBySuffices = src: suffixes: cleanSourceWith {
    inherit src;
    filter = path: type: type == "directory" || builtins.any (suffix: lib.hasSuffix suffix (baseNameOf path)) suffixes;
  };
}
