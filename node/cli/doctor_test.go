package cli

import "testing"

func TestDoctorJudgesSpace(t *testing.T) {
	for _, tc := range []struct {
		name       string
		free       int64
		result     string
		wantDetail string
	}{
		{"too little to start", startSpace - 1, resultFail, "32.0 MiB free, a node needs 32.0 MiB to start"},
		{"just enough to start", startSpace, resultWarn, "32.0 MiB free, less than 1.00 GiB"},
		{"almost enough", enoughSpace - 1, resultWarn, "1.00 GiB free, less than 1.00 GiB"},
		{"enough", enoughSpace, resultOK, "1.00 GiB free"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			want := plain("disk", tc.result, tc.wantDetail)
			if got := judgeSpace("disk", tc.free, startSpace, enoughSpace); got != want {
				t.Errorf("got %v, want %v", got, want)
			}
		})
	}
}
