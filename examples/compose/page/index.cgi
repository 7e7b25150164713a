#!/bin/sh
printf 'Content-Type: text/plain\r\n\r\n'
printf 'The greeter says: '
wget -q -O - "$GREETER" || echo nothing
