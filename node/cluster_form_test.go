package node

import (
	"testing"
)

func TestThreeNodesFormOneCluster(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a, b, c := w.formThree()
		w.write(0, 60)
		b.imports()
		c.archives(60)
		w.packed(a)
		w.mustServe(a, b, c)
		for _, m := range []*member{a, b, c} {
			if local, owner := m.route(t, "local"), m.route(t, "owner"); local == 0 || owner == 0 {
				t.Errorf("%s read %v files itself and %v from their owners", m.ip, local, owner)
			}
		}
	})
}
