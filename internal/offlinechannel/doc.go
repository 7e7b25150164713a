// Package offlinechannel holds the tests of channels/offline. The channel is
// written in Nix, so there is no code here.
package offlinechannel
