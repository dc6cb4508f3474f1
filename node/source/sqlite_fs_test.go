package source

import (
	"errors"
	"testing"
)

func TestNetworkFileSystemsAreRefused(t *testing.T) {
	for magic, network := range map[uint32]bool{
		0x6969:     true,  // NFS
		0xff534d42: true,  // CIFS
		0xfe534d42: true,  // SMB2
		0x517b:     true,  // SMB
		0x00c36400: true,  // Ceph
		0xef53:     false, // ext4
		0x58465342: false, // XFS
		0x9123683e: false, // btrfs
		0x01021994: false, // tmpfs
		0x794c7630: false, // overlay
		0x65735546: false, // FUSE: often local
	} {
		if err := checkKind(magic); errors.Is(err, ErrNetworkFS) != network {
			t.Errorf("%x: %v", magic, err)
		}
	}
}
