<?php

declare(strict_types=1);

// Everything below /typo3: login, the frame with its modules, AJAX endpoints, the Install Tool.

/** What TYPO3's ServerRequestFactory takes for the parsed body: PHP's own, or any body of these methods, urlencoded. */
function parsedBody(): array
{
    $body = $_POST;
    if (in_array($_SERVER['REQUEST_METHOD'], ['PUT', 'PATCH', 'DELETE'], true)) {
        parse_str((string)file_get_contents('php://input'), $body);
    }
    return $body;
}

/** Whether the password is checked at all: 12 and later want a request token with it. */
function hasToken(array $body, string $line): bool
{
    return (float)$line < 12.0 || isset($body['__RequestToken']) || isset($_SERVER['HTTP_X_TYPO3_REQUESTTOKEN']);
}

function backend(string $path, string $line): void
{
    $body = parsedBody();
    if ((float)$line < 12.0 && in_array($path, ['/typo3/', '/typo3/index.php'], true) && isset($_GET['route'])) {
        $path = '/typo3' . $_GET['route'];
    }
    $writes = in_array($_SERVER['REQUEST_METHOD'], ['POST', 'PUT', 'PATCH', 'DELETE'], true);
    $attempt = $writes && ($body['login_status'] ?? $_GET['login_status'] ?? '') === 'login';
    $session = $_COOKIE['be_typo_user'] ?? '';
    $known = preg_match('/\b[0-9a-f]{32}\.[0-9a-f]{64}\b|\beyJ(?!gone|mfa)/', $session) === 1;
    // Whoever has yet to show the second factor has a session, too.
    if ($attempt && !$known && !str_starts_with($session, 'eyJmfa')) {
        attempt($path, $line, $body);
        return;
    }
    match (true) {
        $attempt && $known => backendAnswer(303, '', $line, null, ['Location: /typo3/main?token=' . bin2hex(random_bytes(20))]),
        in_array($path, ['/typo3/', '/typo3/login', '/typo3/index.php'], true) => loginPage($line, false, []),
        $path === '/typo3/ajax/login' => ajaxLogin($line, false, []),
        $path === '/typo3/ajax/login/timedout' => timedOut($line, $known, []),
        $path === '/typo3/@http-reporting' => answer(201, '', [], 'application/json; charset=utf-8'),
        $path === '/typo3/install.php' => installTool(),
        $path === '/typo3/login/request-token' && (float)$line >= 12.0 => backendAnswer(200, '{"headerName":"X-TYPO3-RequestToken","requestToken":"t"}', $line, null,
            [...($known ? [] : [deleted($line)]), nonceCookie()], 'application/json; charset=utf-8'),
        $path === '/typo3/login/password-reset/initiate-reset' => backendAnswer(200, html('TYPO3 CMS Login', '<p>If there is such an account …</p>'), $line, null, [deleted($line)]),
        $path === '/typo3/auth/mfa' && str_starts_with($session, 'eyJmfa') => secondFactor($session, $line, $body),
        in_array($path, ['/typo3/main', '/typo3/module/web/layout'], true) && str_starts_with($session, 'eyJmfa') => answer(302, '', ['Location: /typo3/auth/mfa?identifier=totp']),
        $path === '/typo3/ajax/sudo-mode/verify' && $known && (float)$line >= 12.0 => ($body['password'] ?? '') === 'correct horse'
            ? backendAnswer(200, '{"message":"accessGranted","redirect":{"uri":"/typo3/sudo-mode/apply"}}', $line, null, [], 'application/json; charset=utf-8')
            : backendAnswer(403, '{"message":"invalidPassword"}', $line, null, [], 'application/json; charset=utf-8'),
        str_starts_with($path, '/typo3/reaction/') && (float)$line >= 12.0 => reaction(substr($path, 16)),
        $path === '/typo3/module/user/setup' && $known && $writes => (float)$line < 12.0
            ? backendAnswer(200, html('User settings', ''), $line, null, [session($line)])
            : backendAnswer(302, '', $line, null, ['Location: /typo3/sudo-mode/module', session($line)]),
        !$known && $path !== '/typo3/main' && $path !== '/typo3/module/web/layout' => unauthenticated($line),
        $path === '/typo3/main' => mainFrame($line),
        $path === '/typo3/module/web/layout' => modulePage($line),
        $path === '/typo3/logout' => answer(303, '', ['Location: ' . base() . '/typo3/login', deleted($line)]),
        $path === '/typo3/ajax/page/tree/fetchData' => backendAnswer(200, '[{"identifier":"0","name":"Home"}]', $line, null, [], 'application/json; charset=utf-8'),
        default => unauthenticated($line),
    };
}

/** A try to log in, which every route of the backend takes. */
function attempt(string $path, string $line, array $body): void
{
    $checked = hasToken($body, $line);
    $right = $checked && ($body['userident'] ?? $body['p_field'] ?? '') === 'correct horse';
    $user = $body['username'] ?? '';
    $nonces = $checked && (float)$line >= 12.0 ? consumedNonces() : [];
    if ($user === 'limited') {
        answer(403, html('Login Request Rate Limited', '<h1>Login Request Rate Limited</h1>'));
        return;
    }
    if ($user === 'mailbroken' && !$right) {
        answer(500, html('Oops, an error occurred!', '<h1>Oops, an error occurred!</h1>'));
        return;
    }
    if ($path === '/typo3/ajax/login') {
        ajaxLogin($line, $right, $nonces);
    } elseif ($path === '/typo3/ajax/login/timedout') {
        timedOut($line, $right, [$right ? session($line) : deleted($line), ...$nonces]);
    } elseif (in_array($path, ['/typo3/', '/typo3/login', '/typo3/index.php', '/typo3/login/password-reset/forget'], true)) {
        if (!$right) {
            loginPage($line, true, $nonces);
            return;
        }
        [$status, $to] = match (true) {
            (float)$line >= 12.0 => [303, '/typo3/main?token=' . bin2hex(random_bytes(20))],
            $user === 'mfa' => [302, '/typo3/auth/mfa?token=' . bin2hex(random_bytes(20))],
            default => [303, 'index.php?commandLI=setCookie'],
        };
        backendAnswer($status, '', $line, null, ["Location: $to", session($line), ...$nonces]);
    } else {
        answer(302, '', ['Location: /typo3/login', $right ? session($line) : deleted($line), ...$nonces], 'text/html; charset=UTF-8');
    }
}

function timedOut(string $line, bool $known, array $cookies): void
{
    $body = '{"login":{"timed_out":' . ($known ? 'false' : 'true') . ',"will_time_out":false,"locked":false}}';
    backendAnswer(200, $body, $line, null, $cookies ?: ($known ? [] : [deleted($line)]), 'application/json; charset=utf-8');
}

/** Of the second factor a wrong code may be a 500: TYPO3 14 mails the user at once. */
function secondFactor(string $session, string $line, array $body): void
{
    $code = $body['totp'] ?? '';
    match (true) {
        ($_GET['action'] ?? '') !== 'verify' => backendAnswer(200, html('Second factor', '<input name="totp">'), $line, null, []),
        str_starts_with($session, 'eyJmfalocked') => answer(302, '', ['Location: /typo3/login', deleted($line)]),
        $code === '500500' => answer(500, html('Oops, an error occurred!', '<h1>Oops, an error occurred!</h1>')),
        $code === '123456' => backendAnswer(302, '', $line, null, ['Location: /typo3/login']),
        default => backendAnswer(302, '', $line, null, ['Location: /typo3/auth/mfa?identifier=totp&failure=1']),
    };
}

/** A webhook with a secret of its own. */
function reaction(string $id): void
{
    $status = match (true) {
        $id !== '11111111-1111-4111-8111-111111111111' => 404,
        !isset($_SERVER['HTTP_X_API_KEY']) => 400,
        $_SERVER['HTTP_X_API_KEY'] !== 'correct horse' => 401,
        default => 201,
    };
    answer($status, '{"success":' . ($status === 201 ? 'true' : 'false') . '}', [], 'application/json; charset=utf-8');
}

/** Scheme and authority as this server sees them: wrong unless the proxy says https. */
function base(): string
{
    $https = ($_SERVER['HTTPS'] ?? '') === 'on' || ($_SERVER['REDIRECT_HTTPS'] ?? '') === 'on';
    return ($https ? 'https://' : 'http://') . $_SERVER['HTTP_HOST'];
}

function secure(): string
{
    return str_starts_with(base(), 'https') ? ' secure;' : '';
}

/** The policy that the backend of 12, 13 and 14 sends; never with frame-ancestors. */
function policy(?string $nonce): string
{
    $script = "'self' " . ($nonce === null ? '' : "'nonce-$nonce' ") . "'report-sample'";
    return "Content-Security-Policy: default-src 'self'; script-src $script; style-src 'self' 'unsafe-inline' 'report-sample'; "
        . "style-src-attr 'unsafe-inline' 'report-sample'; img-src 'self' data: *.ytimg.com *.vimeocdn.com; "
        . "frame-src 'self' *.youtube-nocookie.com *.youtube.com *.vimeo.com; base-uri 'none'; object-src 'none'; "
        . 'report-uri ' . base() . '/typo3/@http-reporting?csp=report&requestTime=1795354788369416&requestHash=0160722bd826d08773e9fc225e01a2012da60d11';
}

/** 12 and later delete with Domain, which is another cookie; 11 without. */
function deleted(string $line): string
{
    $domain = (float)$line >= 12.0 ? ' domain=' . preg_replace('/:\d+$/', '', $_SERVER['HTTP_HOST']) . ';' : '';
    return 'Set-Cookie: be_typo_user=deleted; expires=Sat, 22 Nov 2025 13:39:47 GMT; Max-Age=0; path=/;' . $domain . secure() . ' httponly; samesite=lax';
}

function nonceCookie(): string
{
    $prefix = secure() === '' ? '' : '__Secure-';
    return "Set-Cookie: {$prefix}typo3nonce_" . bin2hex(random_bytes(8)) . '=eyJhbGciOiJIUzI1NiJ9.e30.' . bin2hex(random_bytes(16))
        . '; path=/;' . secure() . ' httponly; samesite=strict';
}

/** The sent nonces are consumed by an attempt. */
function consumedNonces(): array
{
    $sent = array_filter(array_keys($_COOKIE), fn($name) => str_contains((string)$name, 'typo3nonce_'));
    return array_map(
        fn($name) => "Set-Cookie: $name=deleted; expires=Sat, 22 Nov 2025 13:39:48 GMT; Max-Age=0; path=/;" . secure() . ' httponly; samesite=strict',
        array_values($sent)
    );
}

function session(string $line): string
{
    $value = (float)$line >= 12.0
        ? 'eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.' . rtrim(base64_encode('{"identifier":"' . bin2hex(random_bytes(16)) . '"}'), '=') . '.' . bin2hex(random_bytes(32))
        : bin2hex(random_bytes(16)) . '.' . bin2hex(random_bytes(32));
    return "Set-Cookie: be_typo_user=$value; path=/;" . secure() . ' httponly; samesite=strict';
}

/** An answer with the fields that the backend of this line adds. */
function backendAnswer(int $status, string $body, string $line, ?string $nonce, array $fields, string $type = 'text/html; charset=utf-8'): void
{
    $own = ['X-Frame-Options: SAMEORIGIN'];
    if ((float)$line >= 12.0) {
        // .htaccess says nosniff as well: Apache's `Header set` leaves one line.
        array_push($own, 'X-Content-Type-Options: nosniff', 'Referrer-Policy: strict-origin-when-cross-origin', policy($nonce));
    }
    $fresh = ['Expires: 0', 'Last-Modified: ' . gmdate('D, d M Y H:i:s') . ' GMT', 'Cache-Control: no-cache, no-store', 'Pragma: no-cache'];
    answer($status, $body, [...$own, ...$fields, ...$fresh], $type);
}

function loginPage(string $line, bool $failed, array $nonces): void
{
    $nonce = base64_encode(random_bytes(24));
    $cookies = (float)$line >= 12.0 ? [deleted($line), nonceCookie(), ...$nonces] : [deleted($line)];
    $message = $failed ? '<div class="typo3-login-error">Your login attempt did not succeed</div>' : '';
    backendAnswer(200, html('TYPO3 CMS Login', "$message<form method=\"post\" action=\"/typo3/login?loginProvider=1433416747\">"
        . '<input type="hidden" name="login_status" value="login"><input name="username"><input name="userident" type="password"></form>'
        . "<script nonce=\"$nonce\">document.documentElement.dataset.login = 'ready';</script>"), $line, $nonce, $cookies);
}

function ajaxLogin(string $line, bool $success, array $nonces): void
{
    $cookies = $success ? [session($line)] : [deleted($line)];
    $body = '{"login":{"success":' . ($success ? 'true' : 'false') . '}}';
    backendAnswer(200, $body, $line, null, [...$cookies, ...$nonces], 'application/json; charset=utf-8');
}

/** Made before TYPO3's own header middleware runs: none of the backend's security fields. */
function unauthenticated(string $line): void
{
    answer(302, '', ['Location: /typo3/login', deleted($line), 'Expires: 0', 'Cache-Control: no-cache, no-store', 'Pragma: no-cache'], 'text/html; charset=UTF-8');
}

/** The outer frame: its module runs in an iframe of the same origin. */
function mainFrame(string $line): void
{
    $nonce = base64_encode(random_bytes(24));
    backendAnswer(200, html('TYPO3 Backend', '<iframe name="list_frame" src="/typo3/module/web/layout"></iframe>'
        . "<script nonce=\"$nonce\">document.documentElement.dataset.main = 'ready';</script>"), $line, $nonce, []);
}

function modulePage(string $line): void
{
    $nonce = base64_encode(random_bytes(24));
    backendAnswer(200, html('Page layout', "<script nonce=\"$nonce\">"
        . "parent.document.documentElement.dataset.module = 'loaded'; parent.document.title = 'module loaded';</script>"), $line, $nonce, []);
}

/** A wrong password costs a slow hash and answers 200; there is no limit of its own. */
function installTool(): void
{
    $cookie = 'Set-Cookie: Typo3InstallTool=' . bin2hex(random_bytes(16)) . '; path=/;' . secure() . ' httponly; samesite=strict';
    $install = parsedBody()['install'] ?? [];
    if (($install['action'] ?? '') === 'login') {
        // The cookie is the session's, and new in both cases: only the body tells.
        $body = ($install['password'] ?? '') === 'joh316' ? '{"success":true}'
            : '{"success":false,"status":[{"title":"Login failed","message":"Given password does not match the install tool login password. Calculated hash: $argon2i$v=19"}]}';
        answer(200, $body, ['X-Frame-Options: SAMEORIGIN', $cookie], 'application/json; charset=utf-8');
        return;
    }
    answer(200, html('Installing TYPO3 CMS', '<h1>Install Tool</h1>'), ['X-Frame-Options: SAMEORIGIN', "Content-Security-Policy: default-src 'self'; script-src 'self' 'nonce-x'; base-uri 'none'"]);
}
