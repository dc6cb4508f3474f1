package store

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

const (
	dialTimeout = 5 * time.Second
	// maxBackoff bounds the pause between two attempts, which the SDK doubles and
	// draws at random.
	maxBackoff = 3 * time.Second
	// idleConns is how many connections to the store are kept for later.
	idleConns = 128
	// credentialsFresh is how long credentials from a file or from variables are
	// used before they are read again.
	credentialsFresh = 5 * time.Minute
)

// httpClient returns the one client of all roles, so that they share
// connections. It has no time limit: wire sets those.
func (c S3Config) httpClient() (*http.Client, error) {
	t := awshttp.NewBuildableClient().WithDialerOptions(func(d *net.Dialer) { d.Timeout = dialTimeout }).GetTransport()
	t.MaxIdleConns, t.MaxIdleConnsPerHost = idleConns, idleConns
	t.ResponseHeaderTimeout = 0
	// Requests of many streams on one connection would share its fate, and HTTP/2
	// gains nothing for bodies of this size.
	t.ForceAttemptHTTP2 = false
	if c.CAFile != "" {
		pool, err := caPool(c.CAFile)
		if err != nil {
			return nil, err
		}
		t.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: pool}
	}
	return &http.Client{
		Transport:     t,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, nil
}

func caPool(path string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("CA file: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("CA file %s: no PEM certificate in it", path)
	}
	return pool, nil
}

// load returns the SDK's configuration with the credentials of one role.
// Credentials are fetched when the first request needs them.
func (c S3Config) load(ctx context.Context, t s3Target, from string) (aws.Config, error) {
	// The SDK's own client, used for fetching credentials: a plain http.Client
	// would be refused where AWS_CA_BUNDLE is set.
	options := []func(*config.LoadOptions) error{config.WithHTTPClient(awshttp.NewBuildableClient())}
	if t.region != "" {
		options = append(options, config.WithRegion(t.region))
	}
	var own aws.CredentialsProvider
	kind, rest, _ := strings.Cut(from, ":")
	switch {
	case from == "":
	case rest == "":
		return aws.Config{}, fmt.Errorf("%q: want profile:NAME, file:PATH, env:PREFIX or nothing", from)
	case kind == "profile":
		options = append(options, config.WithSharedConfigProfile(rest))
	case kind == "file":
		own = expiring(from, func() (s3Secret, error) { return secretFile(rest) })
	case kind == "env":
		own = expiring(from, func() (s3Secret, error) { return secretEnv(rest), nil })
	default:
		return aws.Config{}, fmt.Errorf("%q: want profile:NAME, file:PATH, env:PREFIX or nothing", from)
	}
	if own != nil {
		options = append(options, config.WithCredentialsProvider(own))
	}
	loaded, err := config.LoadDefaultConfig(ctx, options...)
	if err != nil {
		return aws.Config{}, err
	}
	if loaded.Region == "" {
		return aws.Config{}, errors.New("no region: add region=… to the store's URL or set AWS_REGION")
	}
	switch {
	case own != nil: // without the SDK's own cache, which nobody could empty
		loaded.Credentials = aws.NewCredentialsCache(knownFailing{own})
	case loaded.Credentials != nil:
		loaded.Credentials = aws.NewCredentialsCache(knownFailing{loaded.Credentials})
	}
	return loaded, nil
}

// cachedSecret returns the cache of credentials that come from a file or from
// variables, and nil of others: those know themselves when they end.
func cachedSecret(loaded aws.Config, from string) *aws.CredentialsCache {
	if !strings.HasPrefix(from, "file:") && !strings.HasPrefix(from, "env:") {
		return nil
	}
	cache, _ := loaded.Credentials.(*aws.CredentialsCache)
	return cache
}

// credentialsError: there are no credentials to sign with, or not now. No
// request was sent.
type credentialsError struct{ err error }

func (e *credentialsError) Error() string { return e.err.Error() }
func (e *credentialsError) Unwrap() error { return e.err }

// knownFailing marks the errors of a provider.
type knownFailing struct{ aws.CredentialsProvider }

func (k knownFailing) Retrieve(ctx context.Context) (aws.Credentials, error) {
	c, err := k.CredentialsProvider.Retrieve(ctx)
	if err != nil {
		return c, &credentialsError{err}
	}
	return c, nil
}

// credentialsWords describes a source of credentials for errors.
func credentialsWords(from string) string {
	if from == "" {
		return "the SDK's usual chain"
	}
	return from
}

// s3Secret is the JSON of a file of credentials.
type s3Secret struct {
	AccessKeyID     string `json:"access_key_id"`
	SecretAccessKey string `json:"secret_access_key"`
	SessionToken    string `json:"session_token"`
}

// expiring returns a provider of what read returns, asked again now and then.
func expiring(from string, read func() (s3Secret, error)) aws.CredentialsProvider {
	return aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
		secret, err := read()
		if err != nil {
			return aws.Credentials{}, fmt.Errorf("credentials %s: %w", from, err)
		}
		if secret.AccessKeyID == "" || secret.SecretAccessKey == "" {
			return aws.Credentials{}, fmt.Errorf("credentials %s: the access key id or the secret is missing", from)
		}
		return aws.Credentials{
			AccessKeyID: secret.AccessKeyID, SecretAccessKey: secret.SecretAccessKey, SessionToken: secret.SessionToken,
			Source: from, CanExpire: true, Expires: time.Now().Add(credentialsFresh),
		}, nil
	})
}

func secretFile(path string) (s3Secret, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return s3Secret{}, err
	}
	var secret s3Secret
	if err := json.Unmarshal(b, &secret); err != nil {
		return s3Secret{}, errors.New("the file is not the JSON of credentials") // its error might quote them
	}
	return secret, nil
}

func secretEnv(prefix string) s3Secret {
	return s3Secret{
		AccessKeyID: os.Getenv(prefix + "_ACCESS_KEY_ID"), SecretAccessKey: os.Getenv(prefix + "_SECRET_ACCESS_KEY"),
		SessionToken: os.Getenv(prefix + "_SESSION_TOKEN"),
	}
}

// newS3Client returns the SDK's client that sends through doer.
//
// Checksums are ours: the SDK adds those that an operation demands, and checks
// none, as servers that are not Amazon's differ in which they know.
func newS3Client(loaded aws.Config, t s3Target, attempts int, doer s3.HTTPClient) *s3.Client {
	return s3.NewFromConfig(loaded, func(o *s3.Options) {
		if t.endpoint != "" {
			o.BaseEndpoint, o.UsePathStyle = aws.String(t.endpoint), true
		}
		o.HTTPClient = doer
		o.HTTPSignerV4 = signer{}
		o.RequestChecksumCalculation = aws.RequestChecksumCalculationWhenRequired
		o.ResponseChecksumValidation = aws.ResponseChecksumValidationWhenRequired
		o.DisableLogOutputChecksumValidationSkipped = true
		o.Retryer = retry.NewStandard(func(r *retry.StandardOptions) {
			r.MaxAttempts, r.MaxBackoff = attempts, maxBackoff
			r.RateLimiter = newRetryBudget()
			// Ours first: the first that knows the error decides.
			r.Retryables = append([]retry.IsErrorRetryable{retry.IsErrorRetryableFunc(retryable)}, r.Retryables...)
		})
	})
}

// signer signs with the secret that it is given. The SDK's own keeps the key
// that it derived for an access key id until midnight, and so goes on with a
// secret that was changed under the same id.
type signer struct{}

func (signer) SignHTTP(ctx context.Context, c aws.Credentials, r *http.Request, payloadHash, service, region string, at time.Time, options ...func(*v4.SignerOptions)) error {
	s := v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = true }) // as S3 wants it
	return s.SignHTTP(ctx, c, r, payloadHash, service, region, at, options...)
}

// retryable decides where the SDK's own rules don't know better.
func retryable(err error) aws.Ternary {
	var body *bodyError
	switch {
	case errors.Is(err, errBreaker), errors.As(err, &body):
		return aws.FalseTernary
	case errCode(err) == "ConditionalRequestConflict": // another's request on the same key is under way
		return aws.TrueTernary
	default:
		return aws.UnknownTernary
	}
}
