package api

import (
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
)

func contract(t testing.TB) *openapi3.T {
	t.Helper()
	doc, err := openapi3.NewLoader().LoadFromData(openAPI)
	if err != nil {
		t.Fatal(err)
	}
	if err := doc.Validate(t.Context()); err != nil {
		t.Fatal(err)
	}
	return doc
}

func TestContractIsValidOpenAPI(t *testing.T) {
	if doc := contract(t); doc.OpenAPI != "3.1.0" {
		t.Fatalf("openapi: %s", doc.OpenAPI)
	}
}
