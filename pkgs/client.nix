# A program for people's own machines, Linux and macOS, built from the same modules as devhost:
# { devhost, name, package, runtime, description } -> a derivation. `package` is the Go package of
# its command line, below internal/cli; `runtime` are packages whose programs it calls.
{ lib, devhost, name, package, runtime, description }:

devhost.overrideAttrs (old: {
  pname = name;

  subPackages = [ "cmd/${name}" ];
  ldflags = [ "-s" "-w" "-X devhost/internal/cli/${package}.Version=${old.version}" ];

  postInstall = ''
    installShellCompletion --cmd ${name} \
      --bash <($out/bin/${name} completion bash) \
      --zsh <($out/bin/${name} completion zsh) \
      --fish <($out/bin/${name} completion fish)
    $out/bin/${name} man > ${name}.1
    installManPage ${name}.1
    wrapProgram $out/bin/${name} --suffix PATH : ${lib.makeBinPath runtime}
  '';

  meta = old.meta // {
    inherit description;
    mainProgram = name;
    platforms = lib.platforms.linux ++ lib.platforms.darwin;
  };
})
