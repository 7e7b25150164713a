# The client of a dev host, for Linux and macOS. It is built from the same modules as devhost.
{ lib, devhost, bash, gitMinimal, openssh, rsync }:

devhost.overrideAttrs (old: {
  pname = "devhost-deploy";

  subPackages = [ "cmd/devhost-deploy" ];
  ldflags = [ "-s" "-w" "-X devhost/internal/cli/deploy.Version=${old.version}" ];

  postInstall = ''
    installShellCompletion --cmd devhost-deploy \
      --bash <($out/bin/devhost-deploy completion bash) \
      --zsh <($out/bin/devhost-deploy completion zsh) \
      --fish <($out/bin/devhost-deploy completion fish)
    $out/bin/devhost-deploy man > devhost-deploy.1
    installManPage devhost-deploy.1
    wrapProgram $out/bin/devhost-deploy --suffix PATH : ${lib.makeBinPath [ bash gitMinimal openssh rsync ]}
  '';

  meta = old.meta // {
    description = "From an environment of a project to a running development container";
    mainProgram = "devhost-deploy";
    platforms = lib.platforms.linux ++ lib.platforms.darwin;
  };
})
