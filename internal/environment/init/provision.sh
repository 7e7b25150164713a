# Runs on your machine, with bash, in this folder, after the container is up. What
# fails ends it. Keep it small.
#
#   COPY local /remote            a file or folder, written as the service user
#   RUN cmd arg                   as root in the container; nothing is parsed again
#   RUN 'cmd | cmd > /file'       one quoted argument is a command line of the container
#   RUN_AS postgres psql -l       as another user
#   ECHO "$VALUE" /remote         the value and a newline, written as the service user
#
# Variables: PROVISION_CONTAINER, PROVISION_HOST, PROVISION_CHANNEL,
# PROVISION_ALIASES, PROVISION_REBUILD, SSH_CONFIG, RSYNC_RSH and COMPONENT_*.
