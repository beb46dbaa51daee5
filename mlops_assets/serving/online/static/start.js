// The browser's session signs the requests, so that nobody types a token.
SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  tryItOutEnabled: true,
  displayRequestDuration: true,
  filter: true,
  defaultModelsExpandDepth: 0,
  validatorUrl: null,
});
