# What makes and runs devboxes, for Linux and macOS. It is built from the same modules as devhost.
{ lib, devhost, gitMinimal, openssh, qemu }:

devhost.overrideAttrs (old: {
  pname = "devbox-cli";

  subPackages = [ "cmd/devbox-cli" ];
  ldflags = [ "-s" "-w" "-X devhost/internal/cli/devbox.Version=${old.version}" ];

  postInstall = ''
    installShellCompletion --cmd devbox-cli \
      --bash <($out/bin/devbox-cli completion bash) \
      --zsh <($out/bin/devbox-cli completion zsh) \
      --fish <($out/bin/devbox-cli completion fish)
    $out/bin/devbox-cli man > devbox-cli.1
    installManPage devbox-cli.1
    wrapProgram $out/bin/devbox-cli --suffix PATH : ${lib.makeBinPath [ gitMinimal openssh qemu ]}
  '';

  meta = old.meta // {
    description = "Development machines of one's own, by Tart or QEMU";
    mainProgram = "devbox-cli";
    platforms = lib.platforms.linux ++ lib.platforms.darwin;
  };
})
