{ lib
, buildGoModule
, gitMinimal
, installShellFiles
, makeWrapper
, iproute2
, nix
, openssh
, systemd
, util-linux
}:

buildGoModule {
  pname = "devhost";
  version = "0.1.0";

  src = lib.fileset.toSource {
    root = ../.;
    fileset = lib.fileset.unions [
      ../go.mod
      ../go.sum
      ../embed.go
      ../cmd
      ../internal
      ../modules
      ../packaging
      ../tests
    ];
  };

  # scripts/vendor-hash prints it; make check-nix says when it is stale.
  vendorHash = "sha256-5IHPO45/aMkUoXP5thw4hC7aQh2bjqD8F2GRFbTZv6s=";

  env.CGO_ENABLED = "0";
  subPackages = [ "cmd/devhost" ];
  ldflags = [ "-s" "-w" "-X devhost/internal/cli/devhost.Version=0.1.0" ];

  # They need root, containers and a Nix daemon: make test runs them.
  doCheck = false;

  nativeBuildInputs = [ installShellFiles makeWrapper ];

  postInstall = ''
    installShellCompletion --cmd devhost \
      --bash <($out/bin/devhost completion bash) \
      --zsh <($out/bin/devhost completion zsh) \
      --fish <($out/bin/devhost completion fish)
    $out/bin/devhost man > devhost.8
    installManPage devhost.8
    mkdir -p $out/lib/systemd/system
    for unit in packaging/systemd/*; do
      substitute $unit $out/lib/systemd/system/''${unit##*/} --subst-var-by devhost $out/bin/devhost
    done
    wrapProgram $out/bin/devhost --suffix PATH : ${lib.makeBinPath [ gitMinimal iproute2 nix openssh systemd util-linux ]}
  '';

  meta = {
    description = "Development containers with NixOS on a shared Linux host";
    license = lib.licenses.mit;
    mainProgram = "devhost";
    platforms = lib.platforms.linux;
  };
}
