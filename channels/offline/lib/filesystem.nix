# What a path is, and the files below it.
{ lib }:
rec {
  # "regular", "directory", "symlink" or "unknown".
  pathType = path:
    if !builtins.pathExists path then
      throw "lib.filesystem.pathType: Path ${toString path} does not exist."
    else if dirOf path == path then
      "directory"
    else
      (builtins.readDir (dirOf path)).${baseNameOf path};
  pathIsDirectory = path: builtins.pathExists path && pathType path == "directory";
  pathIsRegularFile = path: builtins.pathExists path && pathType path == "regular";

  listFilesRecursive = folder:
    lib.flatten (lib.mapAttrsToList
      (name: type: if type == "directory" then listFilesRecursive (folder + "/${name}") else folder + "/${name}")
      (builtins.readDir folder));
}
