package examples

import (
	"strings"
	"testing"
)

func TestFill(t *testing.T) {
	places := Places{Local: "/tmp/local", Kubeconfigs: map[string]string{"west": "/tmp/west"}, Upstream: "127.0.0.1:5300",
		Targets: map[string]string{"west": "127.0.0.1:8000"}}
	for _, tc := range []struct {
		name, corefile, want, wantError string
	}{
		{
			name:     "a server block listens on loopback",
			corefile: ".:53 example.org {\n}",
			want:     ".:{{.DNS}} example.org:{{.DNS}} {\n    bind 127.0.0.1\n}",
		},
		{
			name:     "addresses of plugins become those of the test, with what else they have",
			corefile: ". {\n  prometheus :9153\n  ready\n  health {\n    lameduck 5s\n  }\n}",
			want: ".:{{.DNS}} {\n    bind 127.0.0.1\n    prometheus {{.Metrics}}\n    ready {{.Ready}}\n" +
				"    health {{.Health}} {\n        lameduck 5s\n    }\n}",
		},
		{
			name: "what uses the pod's account uses the local kubeconfig, and a path the kubeconfig of its name",
			corefile: ". {\n clusterset {\n  cluster east\n  cluster other {\n   address clusterip\n  }\n" +
				"  cluster west /etc/clusterset/west.kubeconfig ctx {\n  }\n  serviceimports\n }\n}",
			want: ".:{{.DNS}} {\n    bind 127.0.0.1\n    clusterset {\n        cluster east /tmp/local\n        cluster other /tmp/local {\n" +
				"            address clusterip\n        }\n        cluster west /tmp/west ctx {\n        }\n        serviceimports /tmp/local\n    }\n}",
		},
		{
			name:     "kubernetes and forward go where the test wants them, comments stay",
			corefile: "# a comment {\n. {\n kubernetes cluster.local {\n }\n kubernetes example.org\n forward . /etc/resolv.conf\n}",
			want: "# a comment {\n.:{{.DNS}} {\n    bind 127.0.0.1\n    kubernetes cluster.local {\n        kubeconfig /tmp/local\n    }\n" +
				"    kubernetes example.org {\n        kubeconfig /tmp/local\n    }\n    forward . 127.0.0.1:5300\n}",
		},
		{
			name:     "what is probed is on loopback, of the same kind and at the same path, and so is what is bound",
			corefile: ". {\n bind 169.254.20.10\n clusterhealth {\n  probe west tcp a.example.org:1\n  probe west https https://b:2/c/d\n  probe west grpc e:3/f\n  drain west\n }\n}",
			want: ".:{{.DNS}} {\n    bind 127.0.0.1\n    clusterhealth {\n        probe west tcp 127.0.0.1:8000\n" +
				"        probe west https https://127.0.0.1:8000/c/d\n        probe west grpc 127.0.0.1:8000/f\n        drain west\n    }\n}",
		},
		{
			name: "a probe of a cluster that nothing stands for is an error", wantError: "line 3: [\"probe\" \"south\" \"tcp\" \"a:1\"]: want",
			corefile: ". {\n clusterhealth {\n probe south tcp a:1\n }\n}",
		},
		{name: "another port is an error", corefile: ".:1053 {\n}", wantError: "line 1: \".:1053\": only port 53 has a substitute"},
		{
			name: "a kubeconfig that nothing stands for is an error", wantError: "line 3: kubeconfig \"/etc/clusterset/south.kubeconfig\": want",
			corefile: ". {\n clusterset {\n cluster south /etc/clusterset/south.kubeconfig\n }\n}",
		},
		{
			name: "so is one in another folder", wantError: "line 3: kubeconfig \"/opt/west.kubeconfig\": want",
			corefile: ". {\n clusterset {\n cluster west /opt/west.kubeconfig\n }\n}",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := Fill(tc.corefile, places)
			if tc.wantError != "" {
				if err == nil || !strings.Contains(err.Error(), tc.wantError) {
					t.Errorf("Error is %v, want %q", err, tc.wantError)
				}
				return
			}
			if err != nil || got != tc.want {
				t.Errorf("Got\n%s\n%v, want\n%s", got, err, tc.want)
			}
		})
	}
}
